"""What goes wrong with every overlay, on the simulator's model of the network."""

from tests.e2e.overlay.test_faults import *  # noqa: F403

LEFT_OUT = {
    "test_a_killed_process_is_noticed": "a real process; a crash of a model's node is test_a_dead_network_service_…",
    "test_processes_find_each_other_on_the_local_network": "mDNS is not modelled",
    "test_loss_is_the_same_for_the_same_seed": "a seed decides a whole run: test_model.py",
    "test_names_are_resolved_by_the_system": "addresses of the model are no names",
    "test_gossip_over_the_limits_is_dropped_and_recorded": "bytes that only a peer without our code would send",
}
for _name in LEFT_OUT:
    del globals()[_name]
