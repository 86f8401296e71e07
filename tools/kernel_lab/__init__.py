"""Other kernels, and this project's tests on them.

    fetch     kernels by apt's own lists, into a folder of the lab
    boot      one kernel under qemu, with this machine's own file system as its root
    rows      what is run on each kernel, and what it needs
    table     what came of it
    main      the command line

Nothing of the system is changed but what `fetch` installs: qemu, kmod, cpio and, for --systemd,
debootstrap.
"""
