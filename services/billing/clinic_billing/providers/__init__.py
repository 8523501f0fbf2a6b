"""Payment providers behind one port: nothing of any provider's protocol is known outside its module."""
