"""BBR version 3 (draft-ietf-ccwg-bbr-03): a congestion controller that models the path.

Cubic and Reno take every loss for a full queue, so that 0.1 % of random loss holds them under 10 of
100 Mbit/s at 40 ms. BBR measures what the path delivers and how long it takes, sends at that rate,
and looks from time to time whether there is more.

* `rate` samples the delivery rate, `filters` keep the largest, the smallest and the like of it;
* `loss` tells loss that is our doing from loss that the path has anyway;
* `model` is what is known of the path, with its short- and long-term bounds;
* `phases` is the state machine: Startup, Drain, ProbeBW and ProbeRTT;
* `controller` is what aioquic calls, and sets the window and the pacing rate;
* `pacer` spreads packets by that rate.

Units are bytes, seconds and bytes per second. Nothing here reads a clock or draws random numbers.
"""
