"""Manifests, audio, crops, sampling, augmentation and the synthetic corpus."""
