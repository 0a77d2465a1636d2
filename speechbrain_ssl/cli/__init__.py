"""The command line ``speechbrain-ssl``: a trained model at work."""
