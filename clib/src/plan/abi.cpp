#include <exception>
#include <new>
#include <string>

#include "abi/misuse.h"
#include "dlavm/plan.h"
#include "plan/solve.h"

namespace {

thread_local std::string last_error;

}  // namespace

int dlavm_plan(const dlavm_plan_problem* problem, const dlavm_plan_options* options,
               dlavm_plan_result* result, uint64_t* offsets) {
    try {
        last_error.clear();
        if (problem == nullptr || result == nullptr || (offsets == nullptr && problem->count != 0)) {
            throw dlavm::abi::Misuse{DLAVM_BAD_ARGUMENT,
                                     "plan: expected problem, result and offsets, got a null pointer"};
        }
        *result = dlavm::plan::solve(*problem, options != nullptr ? *options : dlavm_plan_options{}, offsets);
        return DLAVM_OK;
    } catch (const dlavm::abi::Misuse& misuse) {
        last_error = misuse.text;
        return misuse.status;
    } catch (const std::exception& error) {
        last_error = std::string("plan: expected memory and threads, got ") + error.what();
        return DLAVM_SYSTEM;
    }
}

const char* dlavm_plan_error(void) { return last_error.c_str(); }
