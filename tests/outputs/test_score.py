import torch
from _dummies import network

from gradbench.methods.msp import MSP
from gradbench.outputs.score import score_images


def test_images_are_scored_as_their_outputs_are():
    f = network()
    images = torch.rand(120, *f.shape, generator=torch.Generator().manual_seed(0))
    scores = score_images(MSP(), f, images)
    assert scores.shape == (120,)
    with torch.inference_mode():
        expected = -f(images).double().softmax(1).amax(1)
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-7)
