"""A made recording: a step-level simulator of continuous-batching engines, and what each request truly used.

Read `scenario` (what is simulated), `traffic` (who asks), `engine` and `turns` (what the servers do), `cost` (what a
step costs), `oracle` (whose joules these are), `ground` (all that happened), `sensors` (what a meter sees), `write`
(the folder) and `simulate` (from a scenario to the folder). Nothing here knows the attribution; docs/simulator.md says
what is modelled and what is not.
"""
