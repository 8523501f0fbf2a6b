"""All that the network holds about a patient, as one package: asked for, gathered from every service, taken out, gone."""
