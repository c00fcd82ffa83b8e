"""A made recording: a step-level simulator of continuous-batching engines, and what each request truly used.

Read `scenario` (what is simulated), `traffic` (who asks), `engine` and `turns` (what the servers do), `rates` and
`cost` (what a step costs), `oracle` and `totals` (whose joules these are), `ground` (all that happened), `sensors`,
`engine_log` and `events` (what a meter, a server's page and the gateway tell of it), `write` (the folder) and
`simulate` (from a scenario to the folder). `names` lists the scenarios, `presets` makes them out of `parts`, `loads`
and `bends`. Nothing here knows the attribution; docs/simulator.md says what is modelled and what is not.
"""
