# A bare host: what Ansible needs of it, sshd, and systemd as the first process.
ARG BASE
FROM $BASE
ENV container=docker DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends systemd systemd-sysv dbus sudo openssh-server python3 python3-apt \
    ca-certificates \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && systemctl mask systemd-udevd.service systemd-networkd-wait-online.service getty.target console-getty.service \
    apt-daily.timer apt-daily-upgrade.timer \
 && rm -f /etc/machine-id /var/lib/dbus/machine-id /etc/ssh/ssh_host_* && touch /etc/machine-id \
 && install -d /etc/systemd/system/ssh.service.d \
 && printf '[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n' \
    > /etc/systemd/system/ssh.service.d/hostkeys.conf \
 && useradd -m -s /bin/bash deploy && install -d -m 0700 -o deploy -g deploy /home/deploy/.ssh \
 && printf 'deploy ALL=(ALL) NOPASSWD:ALL\n' > /etc/sudoers.d/deploy && chmod 0440 /etc/sudoers.d/deploy
STOPSIGNAL SIGRTMIN+3
CMD ["/lib/systemd/systemd"]
