// The functions of libnl that are used, found at run time. Internal to io/.
#pragma once

#include <netlink/addr.h>
#include <netlink/cache.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <netlink/socket.h>

namespace ustack::io {

// One row makes the pointer (of the header's own type) and its look-up.
// clang-format off
#define USTACK_LIBNL_FUNCTIONS(X) \
  X(nl_socket_alloc) X(nl_socket_free) X(nl_connect) X(nl_geterror) X(nl_addr_build) X(nl_addr_put) \
  X(nl_addr_set_prefixlen) X(nl_addr_get_prefixlen) X(nl_addr_get_family) X(nl_addr_get_binary_addr) \
  X(nl_addr_get_len) X(nl_cache_free) X(nl_cache_get_first) X(nl_cache_get_next) \
  X(rtnl_link_get_kernel) X(rtnl_link_alloc) X(rtnl_link_put) X(rtnl_link_change) \
  X(rtnl_link_set_flags) X(rtnl_link_unset_flags) X(rtnl_link_get_flags) X(rtnl_link_get_ifindex) \
  X(rtnl_link_set_mtu) X(rtnl_link_get_mtu) X(rtnl_link_set_addr) X(rtnl_link_get_addr) \
  X(rtnl_link_get_type) X(rtnl_addr_alloc) X(rtnl_addr_put) X(rtnl_addr_set_ifindex) \
  X(rtnl_addr_set_local) X(rtnl_addr_add) X(rtnl_addr_alloc_cache) X(rtnl_addr_get_local) \
  X(rtnl_addr_get_ifindex) X(rtnl_route_alloc) X(rtnl_route_put) X(rtnl_route_set_dst) \
  X(rtnl_route_set_scope) X(rtnl_route_add_nexthop) X(rtnl_route_nh_alloc) X(rtnl_route_nh_set_ifindex) \
  X(rtnl_route_nh_set_gateway) X(rtnl_route_add) X(rtnl_route_alloc_cache) X(rtnl_route_get_dst) \
  X(rtnl_route_get_family)
// clang-format on

struct NetlinkFunctions {
#define USTACK_LIBNL_POINTER(name) decltype(&::name) name = nullptr;
  USTACK_LIBNL_FUNCTIONS(USTACK_LIBNL_POINTER)
#undef USTACK_LIBNL_POINTER
};

}  // namespace ustack::io
