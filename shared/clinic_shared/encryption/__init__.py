"""What is encrypted at rest: values under data keys, data keys under key-encryption keys, those with a provider."""
