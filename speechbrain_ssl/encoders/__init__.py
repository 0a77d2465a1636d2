"""Speaker encoders and their input features."""
