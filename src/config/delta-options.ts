/** [delta]: cinder-delta's own options. Their help is the text of deploy/cinder-delta.conf.sample. */
import { largestMergeGapBytes } from '../model/block-size.ts';
import { choice, flag, integer, multiString, port, text, uri } from './option.ts';

export const deltaOptions = {
  agent_url: uri({
    help: 'One agent for all volumes, for example https://storage1:8777. Without it, the agent of a volume is looked for at agent_port on the host of its volume service.',
  }),
  agent_address: multiString({
    help: 'Where the agent of one volume service host is, if not at its name: "host url", for example "node1@ceph https://10.0.0.5:8777". The back end may be left out. May be given several times.',
  }),
  agent_port: port({
    default: 8777,
    help: 'The port that agents listen on, and on which the service looks for them.',
  }),
  agent_token_file: text({
    help: 'A file whose first line is the secret that service and agent share. Both read it; it must not be readable by others. An agent of cinder.conf does not start without it or agent_client_ca_file.',
  }),
  agent_tls: flag({
    default: false,
    help: 'Speak TLS with agents that are found by host name. Agents named by agent_url or agent_address use the scheme of their URL.',
  }),
  agent_ca_file: text({
    help: 'The certificate authority that the service trusts for agents. Without it, that of the system.',
  }),
  agent_client_cert_file: text({
    help: 'The certificate that the service shows to agents.',
  }),
  agent_client_key_file: text({
    help: 'The private key of agent_client_cert_file.',
  }),
  agent_listen: text({
    default: '127.0.0.1',
    help: 'The address that the agent listens on. Any but a loopback address needs TLS, or agent_allow_plaintext.',
  }),
  agent_cert_file: text({
    help: 'The certificate of the agent. With it, the agent speaks TLS only.',
  }),
  agent_key_file: text({
    help: 'The private key of agent_cert_file.',
  }),
  agent_client_ca_file: text({
    help: 'The certificate authority whose client certificates the agent accepts.',
  }),
  agent_allow_plaintext: flag({
    default: false,
    help: 'Let the agent accept its token over plain HTTP on an address that is not loopback: only on a network that is trusted.',
  }),
  agent_max_streams: integer({
    default: 32,
    min: 1,
    max: 4096,
    help: 'Streams that the agent serves at once, and snapshots that it makes; further ones are asked to wait. A backup or a restore has one. A comparing backup has a second one for the blocks that differ: those are counted apart, and there may be as many. Each takes at most 7 MiB of memory, 30 MiB with blocks of 4 MiB.',
  }),
  rest_listen: text({
    default: '127.0.0.1',
    help: 'The loopback address that the REST API and the metrics listen on. Who is to reach them from elsewhere needs a proxy on this host, which asks for a password and speaks TLS.',
  }),
  rest_port: port({
    default: 8790,
    help: 'The port of the REST API and the metrics.',
  }),
  memory_limit_mib: integer({
    default: 512,
    min: 128,
    max: 1_048_576,
    help: 'The most memory, in MiB, that the buffers of all running operations together may take. Operations wait for it; a larger value lets more of them run at full speed.',
  }),
  seal_threads: integer({
    default: 0,
    min: 0,
    max: 256,
    help: 'Threads that hash and compress. 0 means one for each processor, at most 4.',
  }),
  zlib_effort: choice(['speed', 'balanced', 'size'], {
    default: 'balanced',
    help: 'What zlib compression is to favour. Every reader of zlib reads the result of all three.',
  }),
  object_merge_gap_bytes: integer({
    min: 0,
    max: largestMergeGapBytes,
    help: 'Changed ranges with at most this many unchanged bytes between them go into one object of an increment: at most 64 MiB. Without it: one block.',
  }),
  keep_snapshots: integer({
    default: 1,
    min: 0,
    max: 64,
    help: 'Backup snapshots that stay on the storage for each volume: those of its newest backups. The newest one makes the next increment cheap, older ones do so after newer backups are deleted; with 0 every increment compares digests instead.',
  }),
};
