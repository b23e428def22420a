"""Make ``twistd mta`` known to Twisted; everything else is in :mod:`mtatwist.tap`."""

from twisted.application.service import ServiceMaker

mta = ServiceMaker("mtatwist", "mtatwist.tap", "A mail transfer agent", "mta")
