#include "shim/open_file.h"

#include "shim/epoll_set.h"
#include "shim/file_step.h"
#include "shim/host_lock.h"
#include "shim/shared_host.h"

namespace ustack::shim {

OpenFile::OpenFile(Kind kind) : kind_(kind) {}
OpenFile::~OpenFile() = default;

void OpenFile::enlist() {
  FileStep::begin(this, 0, nullptr);
  if (shared_host != nullptr) shared_host->files.push_back(*this);
}

bool OpenFile::release_leaving_close() {
  if (--references_ == 0) return true;
  if (references_ == end_count_) [[unlikely]]
    left_to_ends();
  return false;
}

void OpenFile::release() {
  if (!release_leaving_close()) return;
  if (covers_all()) return close_for_good();
  shared_host->unreferenced.push_back(*this);
  shared_host->closing_pending.store(true, std::memory_order_relaxed);
  FileStep::end();
}

void OpenFile::close_for_good() {
  {
    CommonLock common;
    EpollSet::forget(*this);
  }
  close();
}

}  // namespace ustack::shim
