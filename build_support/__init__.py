"""Compiles csrc/ for setup.py: `environment` (the user's options), `nvcc`, `build`."""
