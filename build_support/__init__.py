"""How setup.py compiles csrc/: `environment` (what the user chooses), `nvcc`, `build`."""
