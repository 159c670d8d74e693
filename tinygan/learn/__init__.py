"""The core made visible and tried out: X-ray, exercises, planted bugs."""
