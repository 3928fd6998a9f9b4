"""Step 4: detectors, one file each. Higher score = more likely abnormal, everywhere."""
