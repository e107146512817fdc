"""How many tokens a text or a request has: estimates that say how far off they can be.

`counter` puts an estimate together: `prompts` takes a request apart, `tokenizers` count what is in
a text, `media` images and PDFs, `calibration` weighs it all by measured data, and `corrections`
learns from real usage. Nothing here is imported before a program asks for an estimate.
"""
