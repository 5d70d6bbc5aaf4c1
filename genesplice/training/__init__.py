"""Pre-training and fine-tuning on Lightning."""
