"""Lab-integration owns lab partners, orders to them, and what they send: raw, matched, versioned, accounted for."""
