"""The command line ``speechbrain-ssl``, which applies a trained model."""
