"""Knowledge distillation with PyTorch Lightning and Hydra."""
