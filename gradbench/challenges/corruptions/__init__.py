"""The 19 corruptions of CIFAR-10-C, made for batches of tensors on any device."""
