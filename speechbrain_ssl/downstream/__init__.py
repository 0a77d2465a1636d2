"""What an embedding knows beside the speaker: probes and fine-tuning."""
