"""Stand-ins for the vendors outside: WhatsApp, Twilio, Postmark and Stripe, as their documentation says.

They speak the vendors' wire formats over real HTTP, so the adapters under test are the ones in
production. `/_control/...` is for people and tests: see what arrived, inject faults, let a customer pay.
"""
