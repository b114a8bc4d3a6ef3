"""Base models and tokenizers as ordinary Hugging Face folders."""
