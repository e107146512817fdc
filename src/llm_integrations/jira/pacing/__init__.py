"""How fast Jira may be asked.

`limits` reads what an answer's headers say, `rules` decides by it, `pacer` waits accordingly, and
`forecasts` tells beforehand what a large job will take.
"""
