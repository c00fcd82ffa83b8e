"""Alert rules: what is measured of the books, when that fires, and who is told. Asks the query gate, never a store.

query --> measures --> rules (states) --> notices --> webhooks; what is known of all of it survives in one small file.
"""
