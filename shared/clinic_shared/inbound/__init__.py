"""What outside senders gave us, message by message: seen, counted, processed again, mended, let be."""
