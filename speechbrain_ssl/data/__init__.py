"""Manifests, audio, crops, sampling and augmentation."""
