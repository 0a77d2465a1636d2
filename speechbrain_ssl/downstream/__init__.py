"""Downstream tasks other than the speaker: linear probes and fine-tuning."""
