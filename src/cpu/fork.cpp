// Operations in a process that was forked.
//
// fork() copies the calling thread alone. libgomp keeps its threads in a pool that belongs to the
// thread that began them, and the child gets that pool without its threads: the first parallel loop
// would wait for them for ever. So before every fork the pool of the calling thread is given back,
// which parent and child make again when they need it. Pools of other threads are not the child's
// concern, as these threads are not there; nor do plans that they are preparing stay half made,
// as a fork waits for them.
//
// A fork from inside of a parallel region cannot do that (the pool is in use): within the region
// the child computes with one thread, at its end it would wait for the others for ever.
//
// LLVM's OpenMP looks after forks by itself. vfork and posix_spawn, which Python's subprocess
// takes, call no handlers.
#include <omp.h>
#include <pthread.h>

#include "onednn.h"

namespace convnet {
namespace {

void before_fork() {
#ifndef KMP_VERSION_MAJOR  // not LLVM's
  omp_pause_resource(omp_pause_soft, omp_get_initial_device());
#endif
  plan_mutex().lock();
}

void after_fork() { plan_mutex().unlock(); }

[[maybe_unused]] const int registered = pthread_atfork(before_fork, after_fork, after_fork);

}  // namespace
}  // namespace convnet
