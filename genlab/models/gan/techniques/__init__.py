"""Techniques for any GAN, one per file; ``base`` has their places, ``compatibility`` their valid combinations."""
