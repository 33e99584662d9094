#!/bin/sh
# Node 3: uD3TN 0.13.0, with aap-config of ud3tn-utils 0.14. What it knows of its neighbours is gone when it ends, so they are told at each start:
# for a year from now, 12,500,000 octets a second.
cd /var/lib/ud3tn || exit
rm -f aap.socket
(
    until [ -S aap.socket ]; do sleep 1; done
    aap-config --socket aap.socket --schedule 1 31536000 12500000 ipn:1.0 mtcp:192.0.2.1:4556
    aap-config --socket aap.socket --schedule 1 31536000 12500000 ipn:2.0 mtcp:192.0.2.2:4556
) &
exec ud3tn --eid ipn:3.0 --cla "mtcp:192.0.2.3,4556" --aap-socket aap.socket --aap2-socket aap2.socket --log-level 3
