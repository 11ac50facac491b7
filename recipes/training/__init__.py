"""A training: its job, the loop around it, and the devices and machines that it runs on."""
