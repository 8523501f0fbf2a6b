"""Stand-ins for those outside: WhatsApp, Twilio, Postmark, Stripe and a laboratory, as their documentation says.

They speak the vendors' wire formats over real HTTP, so the adapters under test are the ones in
production. `/_control/...` is for people and tests: see what arrived, inject faults, let a customer pay.
"""
