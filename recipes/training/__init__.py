"""Training: the job, the training loop, and the devices and machines that it runs on."""
