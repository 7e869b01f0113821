"""Blazar's API. Its own command, `blazar-api`, exits at once, so its WSGI application is served here."""

import sys
from wsgiref.simple_server import make_server

from blazar.cmd import api
from blazar.utils import service
from oslo_config import cfg

cfg.CONF(sys.argv[1:], project="blazar", prog="blazar-api")
service.prepare_service(sys.argv)
make_server("0.0.0.0", 1234, api.wsgi_app.VersionSelectorApplication()).serve_forever()
