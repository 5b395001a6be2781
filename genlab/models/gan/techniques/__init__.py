"""Techniques for any GAN, one per file; ``base`` says where they act, ``compatibility`` which go together."""
