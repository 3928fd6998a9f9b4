"""The twelve challenge types of CURE-TSR, generated for work without that set: a stand-in."""
