"""One run's folder: checkpoints, progress, pictures; its generator; the device that it runs on."""
