"""One readable file per paper; each class is what a ``model/*.yaml`` points its ``_target_`` at."""
