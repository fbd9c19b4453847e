"""Which of two bundles is faster on a device, with the doubt that the answer deserves."""
