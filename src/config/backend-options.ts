/**
 * Options of a back end's section, as far as its volumes are found by them: Cinder's names, types and defaults
 * (cinder/volume/driver.py, drivers/{rbd,lvm,nfs,remotefs}.py). What a section leaves out comes from [backend_defaults].
 */
import { choice, integer, text } from './option.ts';

export const backendOptions = {
  volume_driver: text({ default: 'cinder.volume.drivers.lvm.LVMVolumeDriver' }),
  volume_backend_name: text(),
  backend_host: text(),
  backend_availability_zone: text(),
  rbd_cluster_name: text({ default: 'ceph' }),
  rbd_pool: text({ default: 'rbd' }),
  rbd_user: text(),
  rbd_ceph_conf: text({ default: '' }),
  rbd_secret_uuid: text(),
  rados_connect_timeout: integer({ default: -1 }),
  volume_group: text({ default: 'cinder-volumes' }),
  lvm_type: choice(['default', 'thin', 'auto'], { default: 'auto' }),
  lvm_conf_file: text({ default: '/etc/cinder/lvm.conf' }),
  nfs_mount_point_base: text({ default: '$state_path/mnt' }),
  nfs_shares_config: text({ default: '/etc/cinder/nfs_shares' }),
};
