"""`make test-fresh`: the two commands of the README on machines that have just been installed. Needs root.

Standard library and `clinic_local`'s downloader only, so that no package has to be installed to begin with.
"""
