#!/bin/sh
# nfs.sh CLIENT: serve /srv/shares over NFS 4.1, a folder of it for CLIENT alone and another one for nobody.
set -eu
mkdir -p /srv/shares/open /srv/shares/closed
export_of() {
    printf 'EXPORT { Export_Id = %s; Path = /srv/shares/%s; Pseudo = /shares/%s; Protocols = 4; Transports = TCP; ' "$1" "$2" "$2"
    printf 'SecType = sys; Squash = no_root_squash; Access_Type = None; FSAL { Name = VFS; } CLIENT { Clients = %s; Access_Type = RW; } }\n' "$3"
}
{
    echo 'NFS_CORE_PARAM { Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; }'
    echo 'NFSv4 { Minor_Versions = 1, 2; Graceless = true; }'
    export_of 1 open "$1"
    export_of 2 closed 192.0.2.7
} >/etc/ganesha/ganesha.conf
exec ganesha.nfsd -F -L /dev/stdout -N EVENT -f /etc/ganesha/ganesha.conf
