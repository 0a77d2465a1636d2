"""Downstream tasks: probes and fine-tuning for labels other than speakers."""
