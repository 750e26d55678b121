// Who may open a link.
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/stat.h>

#include <cstring>

#include "io/descriptor.h"
#include "io/link.h"
#include "io/syscalls.h"

namespace ustack::io {

namespace {

/// The payload of the attribute `type`; nullptr: there is none.
rtattr* find(rtattr* attribute, int bytes, unsigned short type) {
  for (; RTA_OK(attribute, bytes); attribute = RTA_NEXT(attribute, bytes))
    if ((attribute->rta_type & NLA_TYPE_MASK) == type) return attribute;
  return nullptr;
}

rtattr* find_in(rtattr* parent, unsigned short type) {
  return parent != nullptr
             ? find(static_cast<rtattr*>(RTA_DATA(parent)), static_cast<int>(RTA_PAYLOAD(parent)), type)
             : nullptr;
}

/// A TAP or TUN device that exists and was given to a user or a group (ip tuntap add ... user NAME).
/// libnl 3.7 knows nothing of the attribute.
bool belongs_to_somebody(const std::string& device) {
  if (device.empty() || device.size() >= IFNAMSIZ) return false;
  const Descriptor socket(static_cast<int>(sys::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)));
  struct {
    nlmsghdr header;
    ifinfomsg link;
    rtattr name_header;
    char name[IFNAMSIZ];
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = RTM_GETLINK;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.name_header = {sizeof request.name_header + sizeof request.name, IFLA_IFNAME};
  device.copy(request.name, sizeof request.name - 1);
  if (!socket || sys::write(socket.get(), &request, sizeof request) != sizeof request) return false;

  alignas(nlmsghdr) char answer[16384];
  const long length = sys::read(socket.get(), answer, sizeof answer);
  auto* header = reinterpret_cast<nlmsghdr*>(answer);
  if (length < NLMSG_HDRLEN || !NLMSG_OK(header, static_cast<uint32_t>(length)) ||
      header->nlmsg_type != RTM_NEWLINK)
    return false;
  auto* link = static_cast<ifinfomsg*>(NLMSG_DATA(header));
  rtattr* info = find(IFLA_RTA(link), static_cast<int>(IFLA_PAYLOAD(header)), IFLA_LINKINFO);
  rtattr* tun = find_in(info, IFLA_INFO_DATA);
  return find_in(tun, IFLA_TUN_OWNER) != nullptr || find_in(tun, IFLA_TUN_GROUP) != nullptr;
}

/// udev's mode is 0666; the driver checks for itself who may have a device.
bool device_node_is_for_all() {
  struct stat status {};
  return sys::call(SYS_newfstatat, AT_FDCWD, sys::arg("/dev/net/tun"), sys::arg(&status), 0) == 0 &&
         (status.st_mode & (S_IWGRP | S_IWOTH)) != 0;
}

}  // namespace

bool needs_rights(const LinkSpec& spec) {
  switch (spec.scheme) {
    case LinkSpec::Scheme::fd:
      return false;
    case LinkSpec::Scheme::tap:
    case LinkSpec::Scheme::tun:
      return !device_node_is_for_all() || !belongs_to_somebody(spec.name);
    case LinkSpec::Scheme::automatic:
    case LinkSpec::Scheme::packet:
      return true;
  }
  return true;
}

}  // namespace ustack::io
