#include "shim/open_file.h"

#include "shim/epoll_set.h"

namespace ustack::shim {

void OpenFile::release() {
  if (--references_ > 0) return;
  EpollSet::forget(*this);
  close();
}

}  // namespace ustack::shim
